/** Speed, measured against peers on the same inputs in the same run. */
@NullMarked
package org.scaledit.benchmarks;

import org.jspecify.annotations.NullMarked;
