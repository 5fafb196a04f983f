/** Scenes that the project composes itself, with captions and with what is where: training data, and truth to compare with. */
@NullMarked
package org.scaledit.scenes;

import org.jspecify.annotations.NullMarked;
