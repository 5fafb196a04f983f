// The backgrounds, pixel by pixel; see pixels.inl.

#include "scene/pixels.inl"

// Where pixels of a row are: their middles, in parts of the picture.
template <int lanes>
struct Place {
    int size;    // of the picture
    int column;  // of the first one
    Lanes<double, lanes> x;
    Lanes<double, lanes> y;
};

// How far a pixel is below a line: 0 ... 1, over a thousandth of the picture or a pixel.
SCALEDIT_SCENE float below(double y, double line, int size) {
    const double pixel = 0.6 / size;
    return smooth(static_cast<float>(0.5 + (y - line) / (2 * (pixel > 0.0006 ? pixel : 0.0006))));
}

// The height of a line that wanders about a height.
template <int lanes>
SCALEDIT_SCENE void line_of(const Noise& noise, double height, double wander, const Place<lanes>& at,
                            Lanes<double, lanes>& line) {
    const Lanes<double, lanes> zero = {};
    Lanes<float, lanes> sum;
    sample<lanes>(noise, at.x, zero, sum);
    for (int i = 0; i < lanes; ++i) {
        line[i] = height + wander * (sum[i] - 0.5);
    }
}

// Adds the light of dots. What a pixel is too large for keeps its light and loses its sharpness.
template <int lanes>
SCALEDIT_SCENE void add_dots(const Dots& dots, const Place<lanes>& at, Lanes<float, lanes>& light) {
    const auto cells = static_cast<float>(dots.cells);
    const double far = dots.reach + 1.0 / at.size;  // a dot ends with a whole pixel
    const int first = floor_of((at.x[0] - far) * dots.cells);
    const int last = floor_of((at.x[lanes - 1] + far) * dots.cells);
    const int bottom = floor_of((at.y[0] + dots.reach) * dots.cells);
    for (int row = floor_of((at.y[0] - dots.reach) * dots.cells); row <= bottom; ++row) {
        for (int column = first < 0 ? 0 : first; column <= last && column < dots.cells; ++column) {
            const double hashed = hash(column, row, dots.seed);
            if (hashed < dots.least) {
                continue;
            }
            const double own = dots.radius * (0.35 + 0.65 * (hashed - dots.least) / (1 - dots.least));
            const double square = own * own + dots.blur * dots.blur;
            const double away = (static_cast<float>(row) + hash(column, row, dots.seed + 1)) / cells - at.y[0];
            const double middle = (static_cast<float>(column) + hash(column, row, dots.seed + 2)) / cells;
            const double reach = 3 * sqrt(square);
            const int left = floor_of((middle - reach) * at.size) - at.column;
            const int right = floor_of((middle + reach) * at.size) - at.column;
            const double bright = dots.light * own * own / square;
            const double inverse = -0.5 / square;
            for (int i = 0; i < lanes; ++i) {
                const double across = at.x[i] - middle;
                const float there = exp_of(static_cast<float>((away * away + across * across) * inverse));
                light[i] += i >= left && i <= right ? static_cast<float>(bright) * there : 0;
            }
        }
    }
}

SCALEDIT_SCENE Rgb day_sky(float down) { return mix(Rgb{110, 172, 238}, Rgb{214, 234, 250}, down); }

template <int lanes>
SCALEDIT_SCENE void paint(const Meadow& meadow, const Place<lanes>& at, Lanes<float, lanes> (&rgb)[3]) {
    Lanes<double, lanes> horizon;
    Lanes<float, lanes> cloud;
    Lanes<float, lanes> blade;
    Lanes<float, lanes> tuft;
    line_of<lanes>(meadow.line, meadow.horizon, 0.06, at, horizon);
    sample<lanes>(meadow.clouds, at.x, at.y, cloud);
    sample<lanes>(meadow.grass, at.x, at.y, blade);
    sample<lanes>(meadow.tufts, at.x, at.y, tuft);
    for (int i = 0; i < lanes; ++i) {
        const float white = smooth((cloud[i] - 0.5F) / 0.22F);
        const float green = 0.5F + 2.4F * (blade[i] - 0.5F) + 0.6F * (tuft[i] - 0.5F);
        const Rgb sky = mix(day_sky(static_cast<float>(at.y[i] / horizon[i])), Rgb{255, 255, 255}, white);
        const Rgb grass = mix(Rgb{32, 96, 24}, Rgb{156, 204, 76}, green);
        put<lanes>(mix(sky, grass, below(at.y[i], horizon[i], at.size)), rgb, i);
    }
}

template <int lanes>
SCALEDIT_SCENE void paint(const NightSky& night, const Place<lanes>& at, Lanes<float, lanes> (&rgb)[3]) {
    Lanes<float, lanes> haze;
    Lanes<float, lanes> stars = {};
    sample<lanes>(night.haze, at.x, at.y, haze);
    add_dots<lanes>(night.small, at, stars);
    add_dots<lanes>(night.large, at, stars);
    for (int i = 0; i < lanes; ++i) {
        const float light = static_cast<float>(at.y[i] * 0.9) + 1.6F * (haze[i] - 0.5F);
        const Rgb sky = mix(Rgb{7, 9, 38}, Rgb{54, 40, 112}, light);
        put<lanes>({sky.red + stars[i], sky.green + stars[i], sky.blue + stars[i]}, rgb, i);
    }
}

// How a ring runs is seen from its neighbours: those beside a pixel, as far as the picture goes, and the one below it.
template <int lanes>
SCALEDIT_SCENE void paint(const WoodenTable& table, std::uint32_t seed, const Place<lanes>& at,
                          Lanes<float, lanes> (&rgb)[3]) {
    const double planks = table.planks;
    const double pixel = 1.0 / at.size;
    constexpr double gap = 0.0024;
    const double soft_square = gap * gap + 0.16 * pixel * pixel;
    const auto depth = static_cast<float>(0.6 * gap / sqrt(soft_square));
    Lanes<double, lanes> shifted;
    Lanes<double, lanes> left_x;
    Lanes<double, lanes> right_x;
    Lanes<double, lanes> next_y;
    Lanes<float, lanes> bend;
    Lanes<float, lanes> left;
    Lanes<float, lanes> right;
    Lanes<float, lanes> next;
    Lanes<float, lanes> grain;
    Lanes<float, lanes> pore;
    for (int i = 0; i < lanes; ++i) {
        const int plank = floor_of(at.y[i] * planks);
        const double shift = 7 * hash(plank, 0, seed);
        const double before = at.x[i] - pixel;
        const double after = at.x[i] + pixel;
        shifted[i] = at.x[i] + shift;
        left_x[i] = (before > 0 ? before : at.x[i]) + shift;
        right_x[i] = (after < 1 ? after : at.x[i]) + shift;
        next_y[i] = at.y[i] + pixel;
    }
    sample<lanes>(table.bend, shifted, at.y, bend);
    sample<lanes>(table.bend, left_x, at.y, left);
    sample<lanes>(table.bend, right_x, at.y, right);
    sample<lanes>(table.bend, shifted, next_y, next);
    sample<lanes>(table.grain, shifted, at.y, grain);
    sample<lanes>(table.pores, shifted, at.y, pore);
    for (int i = 0; i < lanes; ++i) {
        const double place = at.y[i] * planks;
        const float tone = 0.12F * (hash(floor_of(place), 1, seed) - 0.5F);
        const double to_gap = (place - floor_of(place + 0.5)) / planks;
        const float light = 1 - depth * exp_of(static_cast<float>(-to_gap * to_gap / (2 * soft_square)));
        const float runs_right = 8 * (right[i] - left[i]) / 2;
        const float runs_down = 8 * (next[i] - bend[i]) + static_cast<float>(planks * pixel);
        const float ring = visible(runs_right) * visible(runs_down) * sine_of_turns(8 * double{bend[i]} + place);
        const float tint = 0.5F + tone + 0.14F * ring + 1.3F * (grain[i] - 0.5F) + (pore[i] - 0.5F);
        put<lanes>(times(mix(Rgb{96, 54, 24}, Rgb{216, 158, 98}, tint), light), rgb, i);
    }
}

template <int lanes>
SCALEDIT_SCENE void paint(const BrickWall& wall, std::uint32_t seed, const Place<lanes>& at,
                          Lanes<float, lanes> (&rgb)[3]) {
    const double courses = wall.courses;
    const double pixel = 0.6 * courses / at.size;
    const auto soft = static_cast<float>(pixel > 0.006 ? pixel : 0.006);
    Lanes<float, lanes> rough;
    Lanes<float, lanes> grain;
    sample<lanes>(wall.rough, at.x, at.y, rough);
    sample<lanes>(wall.grain, at.x, at.y, grain);
    for (int i = 0; i < lanes; ++i) {
        const double height = at.y[i] * courses;
        const int course = floor_of(height);
        const double along = at.x[i] * courses / 2 + 0.5 * (course & 1);
        const int brick = floor_of(along);
        const auto up = static_cast<float>(height - course);
        const auto within = static_cast<float>(along - brick);
        const float noise = rough[i] - 0.5F;
        const float fine = 1.5F * (grain[i] - 0.5F);
        const float edge = smaller(2 * smaller(within, 1 - within), smaller(up, 1 - up)) + 0.05F * noise;
        const float in_brick = smooth(0.5F + (edge - 0.06F) / (2 * soft));
        const float tint = 0.25F + 0.5F * hash(brick, course, seed) + 0.9F * noise + fine;
        const Rgb mortar = mix(Rgb{150, 145, 135}, Rgb{222, 216, 206}, 0.5F + noise + fine);
        put<lanes>(mix(mortar, mix(Rgb{124, 46, 32}, Rgb{204, 106, 78}, tint), in_brick), rgb, i);
    }
}

template <int lanes>
SCALEDIT_SCENE void paint(const SandyBeach& beach, const Place<lanes>& at, Lanes<float, lanes> (&rgb)[3]) {
    Lanes<double, lanes> shore;
    Lanes<float, lanes> wave;
    Lanes<float, lanes> dune;
    Lanes<float, lanes> grain;
    Lanes<float, lanes> bubble;
    line_of<lanes>(beach.line, beach.shore, 0.14, at, shore);
    sample<lanes>(beach.waves, at.x, at.y, wave);
    sample<lanes>(beach.dunes, at.x, at.y, dune);
    sample<lanes>(beach.grains, at.x, at.y, grain);
    sample<lanes>(beach.bubbles, at.x, at.y, bubble);
    for (int i = 0; i < lanes; ++i) {
        const double y = at.y[i];
        const float water = 0.1F + static_cast<float>(1.6 * (y - beach.horizon)) + 2 * (wave[i] - 0.5F) + 0.2F;
        const float sand = 0.55F + 0.9F * (dune[i] - 0.5F) + 2.6F * (grain[i] - 0.5F);
        const auto from_shore = static_cast<float>((y - shore[i] + 0.012) / 0.013);
        const float foam = exp_of(-from_shore * from_shore) * clamp(0.6F + 2.2F * (bubble[i] - 0.5F));
        const Rgb far = mix(day_sky(static_cast<float>(y / beach.horizon)),
                            mix(Rgb{8, 84, 146}, Rgb{104, 204, 208}, water), below(y, beach.horizon, at.size));
        const Rgb near = mix(Rgb{178, 144, 94}, Rgb{252, 234, 192}, sand);
        put<lanes>(mix(mix(far, near, below(y, shore[i], at.size)), Rgb{255, 255, 255}, foam), rgb, i);
    }
}

template <int lanes>
SCALEDIT_SCENE void paint(const SnowyField& field, const Place<lanes>& at, Lanes<float, lanes> (&rgb)[3]) {
    Lanes<double, lanes> horizon;
    Lanes<float, lanes> drift;
    Lanes<float, lanes> crystal;
    Lanes<float, lanes> snow = {};
    line_of<lanes>(field.line, field.horizon, 0.08, at, horizon);
    sample<lanes>(field.drifts, at.x, at.y, drift);
    sample<lanes>(field.crystals, at.x, at.y, crystal);
    add_dots<lanes>(field.flakes, at, snow);
    for (int i = 0; i < lanes; ++i) {
        const float light = 0.6F + 1.5F * (drift[i] - 0.5F) + 1.3F * (crystal[i] - 0.5F);
        const Rgb sky = mix(Rgb{140, 172, 212}, Rgb{222, 230, 241}, static_cast<float>(at.y[i] / horizon[i]));
        const Rgb ground = mix(Rgb{186, 204, 230}, Rgb{255, 255, 255}, light);
        put<lanes>(mix(mix(sky, ground, below(at.y[i], horizon[i], at.size)), Rgb{255, 255, 255}, snow[i]), rgb, i);
    }
}

template <int lanes>
SCALEDIT_SCENE void paint(const SunsetSea& sea, const Place<lanes>& at, Lanes<float, lanes> (&rgb)[3]) {
    Lanes<float, lanes> cloud;
    Lanes<float, lanes> wave;
    sample<lanes>(sea.clouds, at.x, at.y, cloud);
    sample<lanes>(sea.waves, at.x, at.y, wave);
    for (int i = 0; i < lanes; ++i) {
        const auto away = static_cast<float>((at.x[i] - sea.middle) / 0.22);
        const float high = power_of(clamp(static_cast<float>(at.y[i] / sea.horizon)), 0.9F);
        const float pink = 0.6F * smooth((cloud[i] - 0.48F) / 0.2F);
        const float light = 0.3F + 2 * (wave[i] - 0.5F) + 0.3F * exp_of(-away * away);
        const Rgb sky = mix(mix(Rgb{58, 40, 110}, Rgb{255, 152, 78}, high), Rgb{255, 118, 122}, pink);
        const Rgb water = mix(Rgb{34, 26, 74}, Rgb{250, 152, 96}, light);
        put<lanes>(mix(sky, water, below(at.y[i], sea.horizon, at.size)), rgb, i);
    }
}

// Paper of any light colour, darker at the rim. Its fibres begin in the middle.
template <int lanes>
SCALEDIT_SCENE void paint(const Plain& plain, const Place<lanes>& at, Lanes<float, lanes> (&rgb)[3]) {
    Lanes<double, lanes> y;
    Lanes<float, lanes> fibre;
    for (int i = 0; i < lanes; ++i) {
        y[i] = at.y[i] - 0.5;
    }
    sample<lanes>(plain.fibres, at.x, y, fibre);
    for (int i = 0; i < lanes; ++i) {
        const double x = at.x[i] - 0.5;
        const float light = 1.04F - static_cast<float>(0.32 * (x * x + y[i] * y[i])) + 0.22F * (fibre[i] - 0.5F);
        put<lanes>(times({255 * plain.paper[0], 255 * plain.paper[1], 255 * plain.paper[2]}, light), rgb, i);
    }
}

template <int lanes>
SCALEDIT_SCENE void paint(const Backdrop& backdrop, const Place<lanes>& at, Lanes<float, lanes> (&rgb)[3]) {
    switch (backdrop.background) {
        case SCALEDIT_MEADOW:
            return paint<lanes>(backdrop.meadow, at, rgb);
        case SCALEDIT_NIGHT_SKY:
            return paint<lanes>(backdrop.night_sky, at, rgb);
        case SCALEDIT_WOODEN_TABLE:
            return paint<lanes>(backdrop.wooden_table, backdrop.seed, at, rgb);
        case SCALEDIT_BRICK_WALL:
            return paint<lanes>(backdrop.brick_wall, backdrop.seed, at, rgb);
        case SCALEDIT_SANDY_BEACH:
            return paint<lanes>(backdrop.sandy_beach, at, rgb);
        case SCALEDIT_SNOWY_FIELD:
            return paint<lanes>(backdrop.snowy_field, at, rgb);
        case SCALEDIT_SUNSET_SEA:
            return paint<lanes>(backdrop.sunset_sea, at, rgb);
        default:
            return paint<lanes>(backdrop.plain, at, rgb);
    }
}
