/** How latents come about: schedules, noise, the guidance image and the high-resolution pass. */
@NullMarked
package org.scaledit.sampling;

import org.jspecify.annotations.NullMarked;
