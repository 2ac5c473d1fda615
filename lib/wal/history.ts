/** Timeline history files: how a timeline came out of others. */

import { type Lsn, lsnOf } from "../postgres/lsn.ts";

/** One ancestor: the timeline was left at this LSN. */
export interface TimelineSwitch {
  readonly timeline: number;
  /** The first byte that is not the ancestor's any more. */
  readonly lsn: Lsn;
}

/**
 * The ancestors of a timeline, oldest first. Lines are `TIMELINE<tab>LSN<tab>REASON`; empty lines, comments and what
 * else does not begin so are left out, as PostgreSQL's own files have none of them.
 */
export function parseHistory(text: string): readonly TimelineSwitch[] {
  const switches: TimelineSwitch[] = [];
  for (const line of text.split("\n")) {
    const [, timeline, high, low] =
      /^\s*(\d{1,10})\s+([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})(?:\s|$)/.exec(line) ?? [];
    if (timeline === undefined) continue;
    switches.push({
      timeline: Number(timeline),
      lsn: lsnOf((BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`)),
    });
  }
  return switches;
}
