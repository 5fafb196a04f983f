/**
 * Files of a model: safetensors, model directories in the layout of diffusers, LoRA. Everything is checked before it
 * is used.
 */
@NullMarked
package org.scaledit.checkpoint;

import org.jspecify.annotations.NullMarked;
