/**
 * Threads that compute together, each on a GPU of its own: those of a process ({@link org.scaledit.ranks.Ranks}), or of several,
 * perhaps on other hosts ({@link org.scaledit.ranks.Hosts}).
 */
@NullMarked
package org.scaledit.ranks;

import org.jspecify.annotations.NullMarked;
