/** What tests of several packages need. */
@NullMarked
package org.scaledit.testing;

import org.jspecify.annotations.NullMarked;
