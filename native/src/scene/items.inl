// Objects and their shadows, pixel by pixel; see pixels.inl. Places are taken from the middle of an object's canvas, in
// parts of the picture.

#include "scene/backdrops.inl"

SCALEDIT_SCENE int between(int value, int least, int most) {
    return value < least ? least : value > most ? most : value;
}

SCALEDIT_SCENE float channel_of(std::uint32_t argb, int channel) {
    return static_cast<float>(static_cast<int>(argb >> (24 - 8 * channel) & 255U));
}

// The mean of four points in a pixel, each interpolated between the sprite's pixels: alpha, red, green, blue,
// premultiplied, 0 ... 255. Outside the canvas it is transparent.
template <int lanes>
SCALEDIT_SCENE void sample(const Item& item, int size, const Lanes<double, lanes>& x, const Lanes<double, lanes>& y,
                           Lanes<float, lanes> (&argb)[4]) {
    const Sprite& sprite = item.sprite;
    const int side = sprite.side;
    const int last_row = sprite.part.rows - 1;
    const int last_column = sprite.part.columns - 1;
    for (auto& channel : argb) {
        for (int i = 0; i < lanes; ++i) {
            channel[i] = 0;
        }
    }
    for (int point = 0; point < 4; ++point) {
        const double right = ((point & 1) == 0 ? -0.25 : 0.25) / size;
        const double down = ((point & 2) == 0 ? -0.25 : 0.25) / size;
        Lanes<float, lanes> weight[4];  // of the pixels around the point
        Lanes<int, lanes> place[4];
        Lanes<std::uint32_t, lanes> pixel[4];
        for (int i = 0; i < lanes; ++i) {
            const double px = x[i] + right;
            const double py = y[i] + down;
            const double column = ((item.across[0] * px + item.across[1] * py) / item.canvas + 0.5) * side - 0.5;
            const double row = ((item.down[0] * px + item.down[1] * py) / item.canvas + 0.5) * side - 0.5;
            const int ix = floor_of(column);
            const int iy = floor_of(row);
            const auto u = static_cast<float>(column - ix);
            const auto v = static_cast<float>(row - iy);
            const float of_left = ix >= 0 && ix < side ? 1 - u : 0;
            const float of_right = ix >= -1 && ix < side - 1 ? u : 0;
            const float of_top = iy >= 0 && iy < side ? 1 - v : 0;
            const float of_bottom = iy >= -1 && iy < side - 1 ? v : 0;
            const int first = between(ix - sprite.part.first_column, 0, last_column);
            const int second = between(ix + 1 - sprite.part.first_column, 0, last_column);
            const int upper = between(iy - sprite.part.first_row, 0, last_row) * sprite.part.columns;
            const int lower = between(iy + 1 - sprite.part.first_row, 0, last_row) * sprite.part.columns;
            weight[0][i] = of_left * of_top;
            weight[1][i] = of_right * of_top;
            weight[2][i] = of_left * of_bottom;
            weight[3][i] = of_right * of_bottom;
            place[0][i] = upper + first;
            place[1][i] = upper + second;
            place[2][i] = lower + first;
            place[3][i] = lower + second;
        }
        for (int corner = 0; corner < 4; ++corner) {
            for (int i = 0; i < lanes; ++i) {
                pixel[corner][i] = sprite.argb[place[corner][i]];
            }
        }
        for (int channel = 0; channel < 4; ++channel) {
            for (int i = 0; i < lanes; ++i) {
                argb[channel][i] +=
                    0.25F *
                    (weight[0][i] * channel_of(pixel[0][i], channel) + weight[1][i] * channel_of(pixel[1][i], channel) +
                     weight[2][i] * channel_of(pixel[2][i], channel) + weight[3][i] * channel_of(pixel[3][i], channel));
            }
        }
    }
}

// 0 ... 360
SCALEDIT_SCENE float turned_by(float degrees, float turn) {
    const float sum = degrees + turn;
    return sum - 360 * static_cast<float>(floor_of(sum * (1.0F / 360)));
}

// A channel of a colour of that hue, in sixths of the circle: HSV to RGB by its piecewise linear functions.
SCALEDIT_SCENE float of_hue(float hue, float offset, float saturation, float value) {
    const float sum = hue + offset;
    const float k = sum < 6 ? sum : sum - 6;
    return value - value * saturation * clamp(smaller(k, 4 - k));
}

// Turns a pixel of an object's own hue; other hues and greys stay as they are.
SCALEDIT_SCENE Rgb recoloured(const Item& item, Rgb rgb) {
    constexpr float turned = 45;  // degrees from the own hue within which everything is turned
    constexpr float left = 75;    // and where nothing is any more
    const float most = larger(rgb.red, larger(rgb.green, rgb.blue));
    const float range = most - smaller(rgb.red, smaller(rgb.green, rgb.blue));
    const float divisor = larger(range, 1e-6F);
    const float of_red = (rgb.green - rgb.blue) / divisor;
    const float of_green = 2 + (rgb.blue - rgb.red) / divisor;
    const float of_blue = 4 + (rgb.red - rgb.green) / divisor;
    const float sixths = most == rgb.red ? of_red : most == rgb.green ? of_green : of_blue;
    // On the shorter way, -180 ... 180 degrees
    const float distance = turned_by(60 * sixths - item.own_hue, 180) - 180;
    const float size = distance < 0 ? -distance : distance;
    const float amount = range < 0.02F ? 0 : 1 - smooth((size - turned) / (left - turned));
    // Pale and dark objects get more of it, or one could not tell what it is.
    const float pale = clamp(1 - range / larger(most, 1e-6F));
    const float saturation = item.saturation * (1 - pale * sqrtf(pale));
    const float value = smaller(1, power_of(most, 0.8F) * item.value);
    // A third of the shading's change of hue stays.
    const float hue = turned_by(item.hue, distance / 3) * (1.0F / 60);
    return {rgb.red + amount * (of_hue(hue, 5, saturation, value) - rgb.red),
            rgb.green + amount * (of_hue(hue, 3, saturation, value) - rgb.green),
            rgb.blue + amount * (of_hue(hue, 1, saturation, value) - rgb.blue)};
}

// Fibres that lie in three directions, and tufts.
template <int lanes>
SCALEDIT_SCENE void felt(const Material& felt, const Lanes<double, lanes>& x, const Lanes<double, lanes>& y,
                         Lanes<float, lanes>& brightness) {
    Lanes<float, lanes> sum = {};
    Lanes<float, lanes> tufts;
    for (int direction = 0; direction < 3; ++direction) {
        const double cosine = felt.cosine[direction];
        const double sine = felt.sine[direction];
        Lanes<double, lanes> along;
        Lanes<double, lanes> beside;
        Lanes<float, lanes> fibres;
        for (int i = 0; i < lanes; ++i) {
            beside[i] = cosine * x[i] - sine * y[i];
            along[i] = sine * x[i] + cosine * y[i];
        }
        sample<lanes>(felt.noise[direction], beside, along, fibres);
        for (int i = 0; i < lanes; ++i) {
            sum[i] += fibres[i] - 0.5F;
        }
    }
    sample<lanes>(felt.noise[3], x, y, tufts);
    for (int i = 0; i < lanes; ++i) {
        brightness[i] = 1 + 1.05F * sum[i] + 0.35F * (tufts[i] - 0.5F);
    }
}

// Columns of stitches, each a V of two strands with fibres along them.
template <int lanes>
SCALEDIT_SCENE void knitted(const Material& knitted, const Lanes<double, lanes>& x, const Lanes<double, lanes>& y,
                            Lanes<float, lanes>& brightness) {
    constexpr double columns = 32;
    constexpr double rows = 26;
    Lanes<double, lanes> along_fibres;
    Lanes<float, lanes> strand;
    Lanes<float, lanes> fibres;
    Lanes<float, lanes> wool;
    for (int i = 0; i < lanes; ++i) {
        const double column = x[i] * columns;
        const double within = column - floor_of(column);
        const bool left = within < 0.5;
        const double across = (left ? within - 0.25 : within - 0.75) * 4;  // -1 ... 1 over a strand
        const double slant = 0.35 * (left ? across : -across);
        const double row = y[i] * rows - slant;
        const double along = (row - floor_of(row) - 0.5) * 2;
        const auto roundness = static_cast<float>(1 - 0.85 * across * across - 0.55 * along * along);
        strand[i] = sqrtf(larger(0.02F, roundness)) - 0.68F;  // 0.68: its mean
        along_fibres[i] = x[i] + 0.01 * slant;
    }
    sample<lanes>(knitted.noise[0], along_fibres, y, fibres);
    sample<lanes>(knitted.noise[1], x, y, wool);
    for (int i = 0; i < lanes; ++i) {
        brightness[i] = 1 + 0.62F * knitted.contrast * strand[i] + 0.9F * (fibres[i] - 0.5F) + 0.25F * (wool[i] - 0.5F);
    }
}

// Rings that a board is cut through, and pores along the grain.
template <int lanes>
SCALEDIT_SCENE void wooden(const Material& wood, const Lanes<double, lanes>& x, const Lanes<double, lanes>& y,
                           Lanes<float, lanes>& brightness) {
    Lanes<float, lanes> bend;
    Lanes<float, lanes> grain;
    Lanes<float, lanes> pore;
    sample<lanes>(wood.noise[0], x, y, bend);
    sample<lanes>(wood.noise[1], x, y, grain);
    sample<lanes>(wood.noise[2], x, y, pore);
    for (int i = 0; i < lanes; ++i) {
        const float ring = sine_of_turns(14 * x[i] + 7 * (bend[i] - 0.5));
        brightness[i] = 0.97F + 0.13F * wood.contrast * ring + 0.75F * (grain[i] - 0.5F) + 0.9F * (pore[i] - 0.5F);
    }
}

// Patches, grains, dark specks.
template <int lanes>
SCALEDIT_SCENE void stone(const Material& stone, const Lanes<double, lanes>& x, const Lanes<double, lanes>& y,
                          Lanes<float, lanes>& brightness) {
    Lanes<float, lanes> patch;
    Lanes<float, lanes> grain;
    sample<lanes>(stone.noise[0], x, y, patch);
    sample<lanes>(stone.noise[1], x, y, grain);
    for (int i = 0; i < lanes; ++i) {
        const float rough = grain[i] - 0.5F;
        brightness[i] = 0.98F + 0.55F * (patch[i] - 0.5F) + 2.2F * rough - 2.5F * rough * rough;
    }
}

// Dents and prints of fingers, lit from the left.
template <int lanes>
SCALEDIT_SCENE void clay(const Material& clay, const Lanes<double, lanes>& x, const Lanes<double, lanes>& y,
                         Lanes<float, lanes>& brightness) {
    constexpr double step = 0.004;
    Lanes<double, lanes> shifted_x;
    Lanes<double, lanes> shifted_y;
    Lanes<float, lanes> lower;
    Lanes<float, lanes> upper;
    Lanes<float, lanes> place;
    Lanes<float, lanes> other;
    Lanes<float, lanes> grain;
    for (int i = 0; i < lanes; ++i) {
        shifted_x[i] = x[i] + step;
        shifted_y[i] = y[i] + step;
    }
    sample<lanes>(clay.noise[0], shifted_x, shifted_y, lower);
    for (int i = 0; i < lanes; ++i) {
        shifted_x[i] = x[i] - step;
        shifted_y[i] = y[i] - step;
    }
    sample<lanes>(clay.noise[0], shifted_x, shifted_y, upper);
    for (int i = 0; i < lanes; ++i) {
        shifted_x[i] = x[i] + 7;
    }
    sample<lanes>(clay.noise[1], x, y, place);
    sample<lanes>(clay.noise[1], shifted_x, y, other);
    sample<lanes>(clay.noise[2], x, y, grain);
    for (int i = 0; i < lanes; ++i) {
        const float slope = (lower[i] - upper[i]) / static_cast<float>(step);
        const float print =
            clay.contrast * sine_of_turns(110 * (0.35 * place[i] + 0.2 * y[i])) * smooth((other[i] - 0.45F) * 6);
        const float lit = smaller(0.2F, larger(-0.2F, 0.014F * slope));
        brightness[i] = 1 + lit + 0.06F * print + 0.55F * (grain[i] - 0.5F);
    }
}

// How bright each place is: 1 as it was drawn.
template <int lanes>
SCALEDIT_SCENE void texture(const Material& material, const Lanes<double, lanes>& x, const Lanes<double, lanes>& y,
                            Lanes<float, lanes>& brightness) {
    switch (material.material) {
        case SCALEDIT_FELT:
            return felt<lanes>(material, x, y, brightness);
        case SCALEDIT_KNITTED:
            return knitted<lanes>(material, x, y, brightness);
        case SCALEDIT_WOODEN:
            return wooden<lanes>(material, x, y, brightness);
        case SCALEDIT_STONE:
            return stone<lanes>(material, x, y, brightness);
        default:
            return clay<lanes>(material, x, y, brightness);
    }
}

// A material's own colour, and how much of it an object takes.
struct Own {
    Rgb colour;
    float amount;
};

SCALEDIT_SCENE Own own_of(int material) {
    switch (material) {
        case SCALEDIT_WOODEN:
            return {{0.80F, 0.58F, 0.36F}, 0.4F};
        case SCALEDIT_STONE:
            return {{0.72F, 0.71F, 0.69F}, 0.5F};
        case SCALEDIT_CLAY:
            return {{0.85F, 0.66F, 0.55F}, 0.2F};
        default:
            return {{0, 0, 0}, 0};
    }
}

SCALEDIT_SCENE float shaded(float drawn, float own, float amount, float grey, float brightness) {
    return clamp((drawn + amount * (own * (0.35F + 0.8F * grey) - drawn)) * brightness);
}

// Lays an item over what is there.
template <int lanes>
SCALEDIT_SCENE void paint(const Item& item, const Place<lanes>& at, Lanes<float, lanes> (&rgb)[3]) {
    Lanes<double, lanes> x;
    Lanes<double, lanes> y;
    Lanes<float, lanes> argb[4];
    for (int i = 0; i < lanes; ++i) {
        x[i] = at.x[i] - item.x;
        y[i] = at.y[i] - item.y;
    }
    sample<lanes>(item, at.size, x, y, argb);
    const int end = item.part.first_column + item.part.columns;
    int any = 0;
    for (int i = 0; i < lanes; ++i) {
        const bool inside = at.column + i >= item.part.first_column && at.column + i < end;
        argb[0][i] = inside ? argb[0][i] : 0;
        any |= argb[0][i] > 0 ? 1 : 0;
    }
    if (any == 0) {
        return;
    }
    for (int channel = 1; channel < 4; ++channel) {
        for (int i = 0; i < lanes; ++i) {
            const float alpha = argb[0][i] > 0 ? argb[0][i] : 1;
            argb[channel][i] = smaller(1, argb[channel][i] / alpha);
        }
    }
    if (item.recoloured != 0) {
        for (int i = 0; i < lanes; ++i) {
            const Rgb colour = recoloured(item, {argb[1][i], argb[2][i], argb[3][i]});
            argb[1][i] = colour.red;
            argb[2][i] = colour.green;
            argb[3][i] = colour.blue;
        }
    }
    if (item.material.material != SCALEDIT_AS_DRAWN) {
        const Own own = own_of(item.material.material);
        Lanes<double, lanes> across;
        Lanes<double, lanes> down;
        Lanes<float, lanes> brightness;
        for (int i = 0; i < lanes; ++i) {
            across[i] = item.across[0] * x[i] + item.across[1] * y[i];
            down[i] = item.down[0] * x[i] + item.down[1] * y[i];
        }
        texture<lanes>(item.material, across, down, brightness);
        for (int i = 0; i < lanes; ++i) {
            const float grey = 0.3F * argb[1][i] + 0.59F * argb[2][i] + 0.11F * argb[3][i];
            argb[1][i] = shaded(argb[1][i], own.colour.red, own.amount, grey, brightness[i]);
            argb[2][i] = shaded(argb[2][i], own.colour.green, own.amount, grey, brightness[i]);
            argb[3][i] = shaded(argb[3][i], own.colour.blue, own.amount, grey, brightness[i]);
        }
    }
    for (int channel = 0; channel < 3; ++channel) {
        for (int i = 0; i < lanes; ++i) {
            rgb[channel][i] += argb[0][i] / 255 * (255 * argb[channel + 1][i] - rgb[channel][i]);
        }
    }
}

// An element of a map blurred along its columns, each `lanes` of its neighbours in the row with it. Both of a shadow's
// passes are this: the first one writes its columns as rows.
//
// pair(above, below, i): the sum of two elements, by their rows, in column i; those beyond the canvas are 0.
template <int lanes, class Pair>
SCALEDIT_SCENE void blur(const Shadow& shadow, int row, const Pair& pair, Lanes<float, lanes>& sum) {
    const int middle = row - (shadow.reach + 1);
    for (int i = 0; i < lanes; ++i) {
        sum[i] = 0;
    }
    for (int k = 0; k <= shadow.reach; ++k) {
        const int above = middle - k;
        const int below = middle + k;
        const float weight = k == 0 ? 0.5F * shadow.kernel[0] : shadow.kernel[k];
        const bool has_above = above >= 0 && above < kShadowCanvas;
        const bool has_below = below >= 0 && below < kShadowCanvas;
        if (!has_above && !has_below) {
            continue;
        }
        const int one = has_above ? above : below;
        const int two = has_below ? below : above;
        const float scale = has_above && has_below ? weight : 0.5F * weight;
        for (int i = 0; i < lanes; ++i) {
            sum[i] += scale * pair(one, two, i);
        }
    }
}

// The sprite's alpha, 0 ... 1, blurred along columns: `lanes` of row `row` of the canvas with its room.
template <int lanes>
SCALEDIT_SCENE void blur_down(const Shadow& shadow, int row, int column) {
    Lanes<float, lanes> sum;
    const std::uint32_t* argb = shadow.argb + column;
    blur<lanes>(
        shadow, row,
        [argb](int above, int below, int i) {
            return static_cast<float>(static_cast<int>(argb[above * kShadowCanvas + i] >> 24) +
                                      static_cast<int>(argb[below * kShadowCanvas + i] >> 24));
        },
        sum);
    for (int i = 0; i < lanes; ++i) {
        shadow.down[(column + i) * shadow.stride + row] = sum[i] / 255;
    }
}

// Then along rows.
template <int lanes>
SCALEDIT_SCENE void blur_across(const Shadow& shadow, int row, int column) {
    Lanes<float, lanes> sum;
    const float* down = shadow.down + column;
    const int stride = shadow.stride;
    blur<lanes>(
        shadow, row,
        [down, stride](int above, int below, int i) { return down[above * stride + i] + down[below * stride + i]; },
        sum);
    for (int i = 0; i < lanes; ++i) {
        shadow.map[row * stride + column + i] = sum[i];
    }
}

// Darkens what is there.
template <int lanes>
SCALEDIT_SCENE void paint_shadow(const Item& item, const Place<lanes>& at, Lanes<float, lanes> (&rgb)[3]) {
    const Shadow& shadow = item.shadow;
    const int room = shadow.reach + 1;
    const int end = shadow.part.first_column + shadow.part.columns;
    const int last = shadow.side - 2;
    Lanes<float, lanes> u;
    Lanes<float, lanes> v;
    Lanes<int, lanes> place;
    Lanes<float, lanes> light;
    for (int i = 0; i < lanes; ++i) {
        const double x = at.x[i] - shadow.x;
        const double y = at.y[i] - shadow.y;
        const double across =
            ((item.across[0] * x + item.across[1] * y) / item.canvas + 0.5) * kShadowCanvas + room - 0.5;
        const double down = ((item.down[0] * x + item.down[1] * y) / item.canvas + 0.5) * kShadowCanvas + room - 0.5;
        const int ix = floor_of(across);
        const int iy = floor_of(down);
        const bool inside = ix >= 0 && iy >= 0 && ix <= last && iy <= last &&
                            at.column + i >= shadow.part.first_column && at.column + i < end;
        u[i] = static_cast<float>(across - ix);
        v[i] = static_cast<float>(down - iy);
        place[i] = between(ix, 0, last) * shadow.stride + between(iy, 0, last);
        light[i] = inside ? shadow.darkness : 0;
    }
    for (int i = 0; i < lanes; ++i) {
        const float* map = shadow.map + place[i];  // columns as rows
        const float top = (1 - u[i]) * map[0] + u[i] * map[shadow.stride];
        const float bottom = (1 - u[i]) * map[1] + u[i] * map[shadow.stride + 1];
        light[i] = 1 - light[i] * ((1 - v[i]) * top + v[i] * bottom);
    }
    for (auto& channel : rgb) {
        for (int i = 0; i < lanes; ++i) {
            channel[i] *= light[i];
        }
    }
}
