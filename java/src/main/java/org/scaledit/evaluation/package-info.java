/** How long a step takes and how much memory, beside other ways to compute attention. */
@NullMarked
package org.scaledit.evaluation;

import org.jspecify.annotations.NullMarked;
