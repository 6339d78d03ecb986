import { readFile } from 'node:fs/promises'
import { extname, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Command, Option } from 'commander'
import type { Sql } from 'postgres'
import { examples, withCommon, type Cli, type CommonOptions } from './cli-options.ts'
import { jsonLine, visible, type Terminal } from './terminal.ts'
import { TrackingError } from './tracking-error.ts'

type Options = CommonOptions & { families?: boolean, mode?: string, prune?: boolean, dryRun?: boolean }

/** `actorscope catalog`: what kinds of events there are. */
export function catalogCommand(cli: Cli): Command {
  return new Command('catalog')
    .description('declare kinds of events in the database')
    .addHelpText('after', examples(`
actorscope catalog push ./events.js --dry-run
actorscope catalog push ./events.js --mode enforce`))
    .addCommand(pushCommand(cli))
}

function pushCommand(cli: Cli): Command {
  const command = new Command('push')
    .description('give the database a catalog: an ES module\'s default, "catalog" or "events" export, or JSON')
    .argument('[module]', 'the file')
    .option('--families', 'with the families of events that come with Actorscope (actorscope/catalog)')
    .addOption(new Option('--mode <mode>', 'what becomes of events with other tags (default: as is; warn for new ones)')
      .choices(['off', 'warn', 'enforce']))
    .option('--prune', 'take away what the catalog does not have')
    .option('--dry-run', 'say what would change, and change nothing')
    .addHelpText('after', examples(`
actorscope catalog push ./events.js
actorscope catalog push --families --mode warn
DATABASE_URL=postgres://… actorscope catalog push ./events.json --mode enforce --prune --dry-run`) + `
Prints each event that was added, changed or removed. It speaks to Postgres itself (DATABASE_URL; without one,
the local stack's).

Exit codes:
  0 the database has the catalog   1 refused   2 the flags make no sense
`)
  return withCommon(command).action(async (path: string | undefined, options: Options) => {
    if (path === undefined && !options.families) command.error('error: name the module of a catalog, or --families')
    const families = options.families ? await loadFamilies() : {}
    const catalog = { ...families, ...(path !== undefined && await loadCatalog(path)) }
    const { withDatabase } = await import('./cli-database.ts')
    const changes = await withDatabase(cli, options, (sql) => push(sql, catalog, options))
    for (const change of changes) await show(change, options, cli.terminal)
    cli.terminal.say(summary(changes, options))
  })
}

async function loadFamilies(): Promise<object> {
  return (await import('./events.ts')).events
}

/**
 * Loads a catalog from an ES module or a JSON file. What it must look like is for the database to say.
 *
 * @throws {TrackingError} `module_unreadable`, `module_without_catalog`.
 */
async function loadCatalog(path: string): Promise<object> {
  const exported = extname(path) === '.json' ? await loadJson(path) : await loadModule(path)
  if (typeof exported === 'object' && exported !== null && !Array.isArray(exported)) return exported
  throw new TrackingError('module_without_catalog', {
    details: `${path} exports no catalog.`,
    hint: 'Export an object of events by name as default, "catalog" or "events"; see defineCatalog.' })
}

async function loadJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'))
  } catch (cause) {
    throw unreadable(path, cause)
  }
}

async function loadModule(path: string): Promise<unknown> {
  try {
    const module: Record<string, unknown> = await import(pathToFileURL(resolve(path)).href)
    return module.default ?? module.catalog ?? module.events
  } catch (cause) {
    throw unreadable(path, cause)
  }
}

function unreadable(path: string, cause: unknown): TrackingError {
  const { code = '', message = String(cause) } = cause as { code?: string, message?: string }
  const hint = loadingHints[code] ?? 'It must be an ES module that runs in Node, or JSON.'
  return new TrackingError('module_unreadable', { details: `${path} cannot be loaded: ${message}.`, hint, cause })
}

const elsewhere = 'Name a file, relative to where you are.'
const loadingHints: Record<string, string> = {
  ENOENT: elsewhere,
  ERR_MODULE_NOT_FOUND: elsewhere,
  ERR_UNKNOWN_FILE_EXTENSION: 'This Node does not run TypeScript: compile it, or set NODE_OPTIONS="--import tsx".',
}

/** A row of tracking.push_event_types. */
type Change = { event: string, change: 'added' | 'changed' | 'unchanged' | 'removed' }

async function push(sql: Sql, catalog: object, { mode, prune = false, dryRun }: Options): Promise<Change[]> {
  const undo = new Error('A dry run.')
  let changes: Change[] = []
  await sql.begin(async (tx) => {
    const json = JSON.stringify(catalog)
    changes = [...await tx<Change[]>`
      select event, change from tracking.push_event_types(${json}::text::jsonb, ${mode ?? null}, ${prune})`]
    if (dryRun) throw undo
  }).catch((error: unknown) => {
    if (error !== undo) throw error
  })
  return changes
}

const signs = { added: '+', changed: '~', removed: '-', unchanged: ' ' }

async function show({ event, change }: Change, { json }: Options, terminal: Terminal): Promise<void> {
  if (json) return terminal.print(jsonLine({ event, change }))
  if (change === 'unchanged') return
  const { green, yellow, red } = terminal.colors
  const color = { added: green, changed: yellow, removed: red }[change]
  await terminal.print(color(`${signs[change]} ${visible(event)}`))
}

function summary(changes: Change[], { dryRun }: Options): string {
  const count = (wanted: string) => changes.filter(({ change }) => change === wanted).length
  const counts = ['added', 'changed', 'removed', 'unchanged'].map((change) => `${count(change)} ${change}`).join(', ')
  return dryRun ? `Would be: ${counts}. Nothing was changed.` : `${counts}.`
}
