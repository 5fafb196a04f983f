/** FLUX's autoencoder: pictures to latents and back, tile by tile. */
@NullMarked
package org.scaledit.vae;

import org.jspecify.annotations.NullMarked;
