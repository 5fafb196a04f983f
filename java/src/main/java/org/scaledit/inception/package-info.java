/** Features that an Inception-v3 has of pictures, and how far the features of two sets are apart. */
@NullMarked
package org.scaledit.inception;

import org.jspecify.annotations.NullMarked;
