/** Log lines on stderr: `YYYY-MM-DD HH:MM:SS,mmm [PID] LEVEL: message`, as Barman's commands print them. */
import { printable } from "./printable.ts";

export const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] as const;
export type Level = (typeof LEVELS)[number];

export interface Logger {
  debug(message: string): void;
  info(message: string): void;
  warning(message: string): void;
  error(message: string): void;
  critical(message: string): void;
  /** Is a message of this level shown? To spare costly texts. */
  shows(level: Level): boolean;
}

export interface LoggerOptions {
  /** Index into LEVELS of the lowest level shown; LEVELS.length shows nothing. */
  readonly threshold: number;
  readonly write: (text: string) => void;
  readonly redact: (text: string) => string;
  readonly now: () => Date;
  readonly pid: number;
}

/** Threshold from the counters: WARNING, one step lower for each `-v`, one higher for each `-q`. */
export function thresholdOf(verbose: number, quiet: number): number {
  return Math.min(LEVELS.length, Math.max(0, LEVELS.indexOf("WARNING") - verbose + quiet));
}

export function createLogger(options: LoggerOptions): Logger {
  const at = (level: Level) => (message: string): void => {
    if (!shows(level)) return;
    const text = printable(options.redact(message), level === "DEBUG");
    options.write(`${localTimestamp(options.now())} [${options.pid}] ${level}: ${text}\n`);
  };
  const shows = (level: Level): boolean => LEVELS.indexOf(level) >= options.threshold;
  return {
    debug: at("DEBUG"),
    info: at("INFO"),
    warning: at("WARNING"),
    error: at("ERROR"),
    critical: at("CRITICAL"),
    shows,
  };
}

/** `2026-01-15 10:30:01,123` in the local time zone. */
export function localTimestamp(time: Date): string {
  const two = (n: number) => String(n).padStart(2, "0");
  const date = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  const clock = `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
  return `${date} ${clock},${String(time.getMilliseconds()).padStart(3, "0")}`;
}
