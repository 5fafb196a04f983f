/** What every package needs to compute with native tensors: whose they are, where they live. */
@NullMarked
package org.scaledit.tensor;

import org.jspecify.annotations.NullMarked;
