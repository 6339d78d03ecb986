import type { Sql } from 'postgres'
import type { Chapter } from './chapters.ts'

/** What an examination found. */
export type Finding = {
  /** What was looked at, in a word or two. */
  readonly check: string
  /** `warning`: it works, and something is amiss; `error`: something does not work, or is not safe. */
  readonly verdict: 'ok' | 'warning' | 'error'
  readonly finding: string
  /** What to do about it; mostly SQL to paste. */
  readonly fix?: string
}

/** What one check found. */
export type Result = Omit<Finding, 'check'>

/** Looks at one thing in a database, and changes nothing. */
export type Check = (sql: Sql, chapters: Chapter[]) => Promise<Result>

export const ok = (finding: string): Result => ({ verdict: 'ok', finding })
export const warning = (finding: string, fix: string): Result => ({ verdict: 'warning', finding, fix })
export const error = (finding: string, fix: string): Result => ({ verdict: 'error', finding, fix })

/** A few of some names, and how many more there are. */
export function some(names: readonly string[], most = 4): string {
  const more = names.length - most
  return more > 0 ? `${names.slice(0, most).join(', ')} and ${more} more` : names.join(', ')
}

/** One statement for each name, on one line. */
export function forEach(names: readonly string[], statement: (name: string) => string): string {
  return names.map((name) => `${statement(name)};`).join(' ')
}
