package org.scaledit.cli;

/** A choice that is made by {@code on} or {@code off}. */
enum Switch {
    ON,
    OFF
}
