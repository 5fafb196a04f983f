/** Trains the LoRA that ties windows to the guidance image, and whole models from scratch. */
@NullMarked
package org.scaledit.training;

import org.jspecify.annotations.NullMarked;
