package org.scaledit.cli;

import java.util.Locale;
import org.scaledit.ImageRequest.AttentionKind;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/** {@code native-int8} for {@code NATIVE_INT8}. */
final class AttentionOption implements ITypeConverter<AttentionKind> {
    @Override
    public AttentionKind convert(String value) {
        try {
            return AttentionKind.valueOf(value.toUpperCase(Locale.ROOT).replace('-', '_'));
        } catch (IllegalArgumentException e) {
            throw new TypeConversionException(
                    "expected native, native-exact, native-int8 or dense but was '" + value + "'");
        }
    }
}
