/** Google's labels, which take less than tags: lower-case letters, digits, `_` and `-`, 63 of them. */
import type { Tags } from "../../object_store.ts";

const LONGEST = 63;

/** @param onWarning told of what had to be changed */
export function labelsOf(
  tags: Tags | undefined,
  onWarning: (message: string) => void,
): Record<string, string> | undefined {
  if (tags === undefined || tags.length === 0) return undefined;
  const labels: Record<string, string> = {};
  for (const [key, value] of tags) {
    const plain = lower(key);
    const label = /^[a-z]/.test(plain) ? plain : `t${plain}`.slice(0, LONGEST);
    const text = lower(value);
    if (label !== key || text !== value) {
      onWarning(
        `Tag ${key}=${value} becomes label ${label}=${text}: Google allows no other characters`,
      );
    }
    labels[label] = text;
  }
  return labels;
}

function lower(text: string): string {
  return text.toLowerCase().replace(/[^\p{Ll}\p{Lo}\p{N}_-]/gu, "_").slice(0, LONGEST);
}
