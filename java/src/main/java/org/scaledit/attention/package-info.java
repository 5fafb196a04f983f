/** Who attends to whom, and the ways to compute it. */
@NullMarked
package org.scaledit.attention;

import org.jspecify.annotations.NullMarked;
