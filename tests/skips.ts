/**
 * Tests that need something which a machine may lack say so here: the reason is collected by `scripts/test.ts`
 * and printed at the end with the line that would enable them. Nothing is skipped quietly.
 */
import { appendFileSync } from "node:fs";

/**
 * @param available is it there?
 * @param what what is not tested without it
 * @param enable a command or setting that would bring it
 * @returns what `Deno.test({ ignore })` takes
 */
export function skipUnless(available: boolean, what: string, enable: string): boolean {
  if (available) return false;
  const line = `${what}; to enable: ${enable}`;
  const file = Deno.env.get("TEST_SKIPS_FILE");
  if (file === undefined) console.error(`SKIPPED: ${line}`);
  else appendFileSync(file, `${line}\n`);
  return true;
}
