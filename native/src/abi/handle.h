// What is behind the C ABI's opaque handle.
#pragma once

#include "geometry/geometry.h"

struct scaledit_geometry {
    const scaledit::Geometry value;
};
