/** What writing and reading files have in common, whatever is in them. */
@NullMarked
package org.scaledit.file;

import org.jspecify.annotations.NullMarked;
