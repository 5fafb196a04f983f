/** Trains the LoRA that ties windows to the guidance image. */
@NullMarked
package org.scaledit.training;

import org.jspecify.annotations.NullMarked;
