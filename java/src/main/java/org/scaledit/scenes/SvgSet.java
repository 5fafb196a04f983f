package org.scaledit.scenes;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.github.weisj.jsvg.SVGDocument;
import com.github.weisj.jsvg.parser.LoaderContext;
import com.github.weisj.jsvg.parser.SVGLoader;
import com.github.weisj.jsvg.view.ViewBox;
import java.awt.Component;
import java.awt.Graphics2D;
import java.awt.RenderingHints;
import java.awt.image.BufferedImage;
import java.awt.image.DataBufferInt;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Map;
import org.scaledit.file.Reasons;
import org.scaledit.image.ImageException;

/** A set of SVG pictures in Iconify's JSON: {@code {"width": 32, "icons": {"owl": {"body": "<path …/>"}}}}. */
final class SvgSet {
    private final Path file;
    private final JsonNode json;

    private SvgSet(Path file, JsonNode json) {
        this.file = file;
        this.json = json;
    }

    static SvgSet read(Path file) {
        try {
            return new SvgSet(file, new ObjectMapper().readTree(file.toFile()));
        } catch (IOException e) {
            throw new ImageException("cannot read " + file + " as a set of SVG pictures: " + Reasons.of(e), e);
        }
    }

    /** A picture as alpha, red, green, blue, premultiplied: {@code [side · side]} */
    int[] rasterize(String icon, int side) {
        SVGDocument document = new SVGLoader()
                .load(
                        new ByteArrayInputStream(svg(icon).getBytes(StandardCharsets.UTF_8)),
                        null,
                        LoaderContext.createDefault());
        if (document == null) {
            throw new ImageException("picture " + icon + " of " + file + " is no SVG that can be drawn");
        }
        BufferedImage image = new BufferedImage(side, side, BufferedImage.TYPE_INT_ARGB_PRE);
        Graphics2D graphics = image.createGraphics();
        graphics.setRenderingHints(new RenderingHints(Map.of(
                RenderingHints.KEY_ANTIALIASING, RenderingHints.VALUE_ANTIALIAS_ON,
                RenderingHints.KEY_STROKE_CONTROL, RenderingHints.VALUE_STROKE_PURE,
                RenderingHints.KEY_RENDERING, RenderingHints.VALUE_RENDER_QUALITY)));
        document.render((Component) null, graphics, new ViewBox(0, 0, side, side));
        graphics.dispose();
        return ((DataBufferInt) image.getRaster().getDataBuffer()).getData();
    }

    private String svg(String icon) {
        JsonNode entry = json.path("icons").path(icon);
        if (!entry.path("body").isTextual()) {
            throw new ImageException(file + " has no picture " + icon);
        }
        int width = entry.path("width").asInt(json.path("width").asInt(16)); // Iconify's own default
        int height = entry.path("height").asInt(json.path("height").asInt(16));
        return "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"" + width
                + "\" height=\"" + height + "\" viewBox=\"0 0 " + width + " " + height + "\">"
                + entry.get("body").asText() + "</svg>";
    }
}
