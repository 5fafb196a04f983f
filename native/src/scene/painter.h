// Paints pictures on the caller's thread; written once (painter.inl), compiled for each instruction set.
#pragma once

#include "scene/picture.h"

namespace scaledit::scene {

using Painter = void (*)(const Picture& picture);

void paint_portable(const Picture& picture);
#if defined(__x86_64__)
void paint_avx2(const Picture& picture);
void paint_avx512vnni(const Picture& picture);
#endif

}  // namespace scaledit::scene
