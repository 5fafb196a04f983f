#include "scene/painter.h"

#if defined(__x86_64__)
#include <math.h>

namespace scaledit::scene {
namespace {

#include "scene/cpu_painter.inl"

}  // namespace

void paint_avx2(const Picture& picture) { paint_picture(picture); }

}  // namespace scaledit::scene

#endif
