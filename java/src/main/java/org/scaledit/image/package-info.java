/** Pictures as files and as pixels: reading, resizing, rounding to 8 bits, PNG with text. */
@NullMarked
package org.scaledit.image;

import org.jspecify.annotations.NullMarked;
