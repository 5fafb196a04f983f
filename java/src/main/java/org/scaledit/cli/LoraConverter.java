package org.scaledit.cli;

import java.nio.file.Files;
import java.nio.file.Path;
import org.scaledit.checkpoint.LoraFile;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** {@code FILE[:scale]}. A file whose own name ends in a colon and a number is meant whole if it exists. */
final class LoraConverter implements ITypeConverter<LoraFile> {
    @Override
    public LoraFile convert(String value) {
        int colon = value.lastIndexOf(':');
        if (colon < 0 || Files.exists(Path.of(value))) {
            return new LoraFile(Path.of(value), 1);
        }
        String scale = value.substring(colon + 1);
        try {
            return new LoraFile(Path.of(value.substring(0, colon)), Double.parseDouble(scale));
        } catch (NumberFormatException e) {
            throw new TypeConversionException("the scale '" + scale + "' of '" + value + "' is not a number");
        } catch (IllegalArgumentException e) {
            throw new TypeConversionException(e.getMessage());
        }
    }
}
