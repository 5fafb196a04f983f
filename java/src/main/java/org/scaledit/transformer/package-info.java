/** FLUX.1's transformer with Scale-DiT's guidance stream. */
@NullMarked
package org.scaledit.transformer;

import org.jspecify.annotations.NullMarked;
