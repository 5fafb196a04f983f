/**
 * Scale-DiT for Java: pictures of 4096² pixels and more from text, with a pretrained FLUX.1 checkpoint.
 *
 * <p>Everything a program needs is here: {@link org.scaledit.ScaleDit}, {@link org.scaledit.ImageRequest}, {@link
 * org.scaledit.GeneratedImage}, {@link org.scaledit.Progress}. The packages below are not public API.
 */
@NullMarked
package org.scaledit;

import org.jspecify.annotations.NullMarked;
