package org.scaledit.cli;

import java.nio.file.Files;
import java.nio.file.Path;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** {@code FILE[:scale]}. A file whose own name ends in a colon and a number is meant whole if it exists. */
record LoraOption(Path file, double scale) {

    static final class Converter implements ITypeConverter<LoraOption> {
        @Override
        public LoraOption convert(String value) {
            int colon = value.lastIndexOf(':');
            if (colon < 0 || Files.exists(Path.of(value))) {
                return new LoraOption(Path.of(value), 1);
            }
            String scale = value.substring(colon + 1);
            try {
                return new LoraOption(Path.of(value.substring(0, colon)), Double.parseDouble(scale));
            } catch (NumberFormatException e) {
                throw new TypeConversionException("the scale '" + scale + "' of '" + value + "' is not a number");
            }
        }
    }
}
