/** Text in columns, as Barman prints it: padded with blanks, trailing ones included, never cut. */
import { withoutControls } from "./printable.ts";

/** One line of cells, each left-aligned and padded to its width. */
export function tableLine(cells: readonly string[], widths: readonly number[]): string {
  return `${cells.map((cell, index) => pad(cell, widths[index] ?? 0)).join("")}\n`;
}

/** `  Label                  : value`, with the label padded to a width. */
export function labelledLine(indent: number, width: number, label: string, value: string): string {
  return `${" ".repeat(indent)}${pad(label, width)}: ${withoutControls(value)}\n`;
}

/** Python counts characters, JavaScript UTF-16 units. */
function pad(cell: string, width: number): string {
  const text = withoutControls(cell);
  return text + " ".repeat(Math.max(0, width - [...text].length));
}

const SIZE_UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/** `1000 B`, `25.6 MiB`: powers of 1024, one decimal. */
export function readableSize(bytes: number): string {
  if (Math.abs(bytes) < 1024) return `${Math.trunc(bytes)} B`;
  let size = bytes;
  let unit = "B";
  for (const next of SIZE_UNITS) {
    if (Math.abs(size) < 1024) break;
    size /= 1024;
    unit = next;
  }
  return `${size.toFixed(1)} ${unit}`;
}

/** `1 day, 2 hours, 3 minutes, 4 seconds`, without the units that are zero. */
export function readableDuration(seconds: number): string {
  let rest = Math.trunc(seconds);
  const parts: string[] = [];
  for (
    const [unit, size] of [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]] as const
  ) {
    const count = Math.trunc(rest / size);
    rest -= count * size;
    if (count > 0) parts.push(`${count} ${unit}${count === 1 ? "" : "s"}`);
  }
  return parts.join(", ") || "less than one second";
}
