/** A detector of the objects of scenes, and what it says of pictures that were painted from their captions. */
@NullMarked
package org.scaledit.judge;

import org.jspecify.annotations.NullMarked;
