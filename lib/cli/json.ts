/** JSON in the notation of Python's `json.dumps`, which the callers of list and show get from Barman. */
import {
  formatPythonFloat,
  formatPythonLiteral,
  isPyDict,
  PyFloat,
  PyTuple,
  type PyValue,
} from "../backup/python_literal.ts";

/** Separators `", "` and `": "`, non-ASCII as `\uXXXX`, floats as Python prints them, tuples as arrays. */
export function pythonJson(value: PyValue): string {
  if (value === null) return "null";
  switch (typeof value) {
    case "boolean":
    case "number":
    case "bigint":
      return String(value);
    case "string":
      return jsonString(value);
  }
  if (value instanceof PyFloat) return jsonFloat(value.value);
  if (value instanceof PyTuple) return jsonArray(value.items);
  if (isPyDict(value)) {
    const entries = [...value].map(([key, item]) => `${jsonKey(key)}: ${pythonJson(item)}`);
    return `{${entries.join(", ")}}`;
  }
  return jsonArray(value);
}

function jsonArray(items: readonly PyValue[]): string {
  return `[${items.map(pythonJson).join(", ")}]`;
}

/** JSON has string keys only; Python writes the others by their JSON text. */
function jsonKey(key: PyValue): string {
  if (typeof key === "string") return jsonString(key);
  const text = key instanceof PyTuple ? formatPythonLiteral(key) : pythonJson(key);
  return jsonString(text);
}

function jsonFloat(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value < 0 ? "-Infinity" : "Infinity";
  return formatPythonFloat(value);
}

function jsonString(text: string): string {
  // One escape for each UTF-16 unit: the pair of a character beyond the basic plane becomes two.
  return JSON.stringify(text).replace(
    /[\u007f-\uffff]/g,
    (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
