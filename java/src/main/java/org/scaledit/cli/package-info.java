/** The command line, {@code tools/scaledit}. */
@NullMarked
package org.scaledit.cli;

import org.jspecify.annotations.NullMarked;
