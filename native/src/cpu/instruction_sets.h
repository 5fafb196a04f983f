// The kernels and the painter of scenes of each instruction set.
#pragma once

#include "cpu/kernels.h"
#include "scaledit/scaledit.h"
#include "scene/painter.h"

namespace scaledit::cpu {

// The set must be one that supported() knows.
const Kernels& kernels_of(scaledit_instruction_set set);
scene::Painter painter_of(scaledit_instruction_set set);

}  // namespace scaledit::cpu
