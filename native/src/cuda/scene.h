// Scenes on an NVIDIA GPU.
#pragma once

#include "scaledit/scaledit.h"

namespace scaledit::cuda {

// The arguments are checked already, and there is a pixel to paint; the output's GPU runs the kernels. Throws Error, as
// device.h says.
void run(const scaledit_cuda_scene_arguments& arguments);

}  // namespace scaledit::cuda
