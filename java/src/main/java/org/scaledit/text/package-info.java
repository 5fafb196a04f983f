/** A prompt's way into the model: the tokens of CLIP and T5, and what the two encoders make of them. */
@NullMarked
package org.scaledit.text;

import org.jspecify.annotations.NullMarked;
