package org.scaledit.image;

import java.awt.image.BufferedImage;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Collections;
import java.util.Iterator;
import java.util.Locale;
import javax.imageio.ImageReadParam;
import javax.imageio.ImageReader;
import javax.imageio.ImageTypeSpecifier;
import javax.imageio.metadata.IIOMetadata;
import javax.imageio.spi.ImageReaderSpi;
import javax.imageio.stream.ImageInputStream;
import org.jspecify.annotations.Nullable;

/** A reader of pictures that fails at a damaged one as decoders may: with an unchecked exception. */
final class FailingReader extends ImageReader {
    /** What its files begin with. */
    static final String START = "strange picture";

    static final class Provider extends ImageReaderSpi {
        Provider() {
            names = new String[] {"jpeg"};
            inputTypes = new Class<?>[] {ImageInputStream.class};
        }

        @Override
        public boolean canDecodeInput(Object source) throws IOException {
            ImageInputStream stream = (ImageInputStream) source;
            byte[] start = new byte[START.length()];
            stream.mark();
            int read = stream.read(start);
            stream.reset();
            return read == start.length && Arrays.equals(start, START.getBytes(StandardCharsets.US_ASCII));
        }

        @Override
        public ImageReader createReaderInstance(@Nullable Object extension) {
            return new FailingReader(this);
        }

        @Override
        public String getDescription(@Nullable Locale locale) {
            return START;
        }
    }

    private FailingReader(ImageReaderSpi provider) {
        super(provider);
    }

    @Override
    public int getNumImages(boolean search) {
        return 1;
    }

    @Override
    public int getWidth(int index) {
        return 1;
    }

    @Override
    public int getHeight(int index) {
        return 1;
    }

    @Override
    public Iterator<ImageTypeSpecifier> getImageTypes(int index) {
        return Collections.emptyIterator();
    }

    @Override
    public @Nullable IIOMetadata getStreamMetadata() {
        return null;
    }

    @Override
    public @Nullable IIOMetadata getImageMetadata(int index) {
        return null;
    }

    @Override
    public BufferedImage read(int index, @Nullable ImageReadParam parameters) {
        throw new NegativeArraySizeException("-7");
    }
}
