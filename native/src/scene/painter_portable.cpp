#include <math.h>

#include "scene/painter.h"

namespace scaledit::scene {
namespace {

#include "scene/cpu_painter.inl"

}  // namespace

void paint_portable(const Picture& picture) { paint_picture(picture); }

}  // namespace scaledit::scene
