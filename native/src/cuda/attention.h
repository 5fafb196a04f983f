// Attention on an NVIDIA GPU over a geometry's tile lists.
#pragma once

#include "cuda/device_geometry.h"
#include "cuda/kernels.h"
#include "geometry/geometry.h"
#include "scaledit/scaledit.h"

namespace scaledit::cuda {

// All throw Error: SCALEDIT_UNSUPPORTED where the machine cannot, SCALEDIT_INVALID_ARGUMENT for memory of another
// device, SCALEDIT_INTERNAL_ERROR for what CUDA reports.

void check_device(std::int32_t device);

void upload(const Geometry& geometry, void* device_memory, void* stream);

// Sizes, strides and overlaps are checked already; query's GPU runs the kernel.
void attend(const Geometry& geometry, const DeviceGeometryLayout& at, Kernel kernel,
            const scaledit_cuda_attention_arguments& arguments);

}  // namespace scaledit::cuda
