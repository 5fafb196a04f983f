// The kernels of each instruction set.
#pragma once

#include "cpu/kernels.h"
#include "scaledit/scaledit.h"

namespace scaledit::cpu {

// The set must be one that supported() knows.
const Kernels& kernels_of(scaledit_instruction_set set);

}  // namespace scaledit::cpu
