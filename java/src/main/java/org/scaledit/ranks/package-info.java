/** Threads that compute together, each on a GPU of its own. */
@NullMarked
package org.scaledit.ranks;

import org.jspecify.annotations.NullMarked;
