import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { projectDir } from './settings.ts'

/** A migration, and what it makes: as it is written, to hold a database against it. */
export type Chapter = {
  /** Such as 20260101000400. */
  readonly version: string
  /** Its file, from the project's folder. */
  readonly file: string
  /** Name and body, the text between the dollars. */
  readonly functions: readonly { name: string, body: string }[]
  readonly tables: readonly string[]
  readonly policies: readonly { name: string, table: string }[]
  readonly grants: readonly Grant[]
  readonly jobs: readonly { name: string, statement: string }[]
}

/** Who may do what with a table or a function. */
export type Grant = {
  readonly object: string
  readonly role: string
  /** Such as SELECT. */
  readonly privilege: string
  /** Absent: all of the table, or a function. */
  readonly column?: string
}

/** Reads the chapters in migrations/, in order. */
export async function readChapters(): Promise<Chapter[]> {
  const files = (await readdir(join(projectDir, 'migrations'))).filter((file) => file.endsWith('.sql')).sort()
  return Promise.all(files.map(async (file) => {
    const text = await readFile(join(projectDir, 'migrations', file), 'utf8')
    return parseChapter(`migrations/${file}`, text.replaceAll('\r\n', '\n'))
  }))
}

function parseChapter(file: string, text: string): Chapter {
  /** What the groups of a pattern matched, each time that it did. */
  const all = (pattern: RegExp) => [...text.matchAll(pattern)].map(([, a = '', b = '', c = '']) => [a, b, c] as const)
  return {
    version: /\d+/.exec(file)?.[0] ?? file,
    file,
    functions: all(/^create function ([\w.]+)\s*\([^]*?^as \$\$([^]*?)\$\$/gm).map(([name, body]) => ({ name, body })),
    tables: all(/^create (?:unlogged )?table ([\w.]+)/gm).map(([name]) => name),
    policies: all(/^ *create policy "([^"]+)" on ([\w.]+)/gm).map(([name, table]) => ({ name, table })),
    grants: all(/^grant ([^;]+?) on (?!schema )(?:function\s+)?([^;]+?)\s+to ([^;]+);/gm)
      .flatMap(([privileges, objects, roles]) => grantsIn(privileges, objects, roles)),
    jobs: all(/^ *perform (cron\.schedule\('([^']+)'[^;]*\));/gm)
      .map(([call, name]) => ({ name, statement: `select ${call}` })),
  }
}

function grantsIn(privileges: string, objects: string, roles: string): Grant[] {
  const granted = [...privileges.matchAll(/(\w+)\s*(?:\(([^)]*)\))?/g)].flatMap(([, name = '', columns]) => {
    const privilege = name.toUpperCase()
    return columns === undefined ? [{ privilege }] : words(columns).map((column) => ({ privilege, column }))
  })
  return words(objects).flatMap((object) => words(roles).flatMap((role) =>
    granted.map((one) => ({ object, role, ...one }))))
}

const words = (text: string): string[] => text.split(',').map((word) => word.trim())
