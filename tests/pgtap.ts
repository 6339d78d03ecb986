import { execFile } from 'node:child_process'
import { cp, mkdtemp, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { Sql } from 'postgres'
import { shareDir } from '../src/postgres.ts'

/** Puts pgTAP, which comes in an npm package, among the extensions of the embedded Postgres. */
export async function installPgTap(): Promise<void> {
  const archive = join(dirname(createRequire(import.meta.url).resolve('@electric-sql/pglite-pgtap')), 'pgtap.tar.gz')
  const draft = await mkdtemp(join(tmpdir(), 'actorscope-pgtap-'))
  await promisify(execFile)('tar', ['-xzf', archive, '-C', draft])
  await cp(join(draft, 'share/postgresql/extension'), join(await shareDir(), 'extension'), { recursive: true })
  await rm(draft, { recursive: true })
}

/** What a file of pgTAP tests came to. */
export type TapResult = {
  passed: number
  /** Each failure with its diagnostics: failed assertions, an assertion too few or too many, an SQL error. */
  failures: string[]
}

/** Runs a file of pgTAP tests. */
export async function runPgTap(sql: Sql, text: string): Promise<TapResult> {
  const lines: string[] = []
  const error = await sql.unsafe(text).simple()
    .forEach((row) => { lines.push(...Object.values(row).filter((value) => typeof value === 'string')) })
    .then(() => undefined, (cause: Error) => cause)
  return judge(lines, error)
}

function judge(lines: string[], error?: Error & { detail?: string, where?: string }): TapResult {
  const results = lines.filter((line) => /^(not )?ok \d+/.test(line))
  const failures = results.filter((line) => line.startsWith('not ok') && !/# (todo|skip)/i.test(line))
  const planned = lines.map((line) => /^1\.\.(\d+)/.exec(line)?.[1]).find(Boolean)
  if (error) failures.push(describe(error, results.length))
  else if (planned === undefined) failures.push('The file has no plan.')
  else if (Number(planned) !== results.length) failures.push(`${planned} assertions were planned, and ${results.length} ran.`)
  return { passed: results.length - failures.length, failures }
}

function describe(error: Error & { detail?: string, where?: string }, ran: number): string {
  return [`After ${ran} assertions: ${error.message}`, error.detail, error.where].filter(Boolean).join('\n')
}
