package org.scaledit.cli;

import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** {@code on} or {@code off}. */
final class Switch implements ITypeConverter<Boolean> {
    @Override
    public Boolean convert(String value) {
        return switch (value) {
            case "on" -> true;
            case "off" -> false;
            default -> throw new TypeConversionException("expected on or off but was '" + value + "'");
        };
    }
}
