import { spawn, type ChildProcess } from 'node:child_process'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { Command } from 'commander'
import { build } from 'esbuild'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, expectTypeOf, test } from 'vitest'
import { publishableKey } from '../src/api.ts'
import { trackCommand, type CommandLike, type CommandTracker } from '../src/commander.ts'
import { commandEvents, events, faultInTags } from '../src/events.ts'
import { freePort } from '../src/postgres.ts'
import { createTracker } from '../src/tracker.ts'
import type { Setup } from './command-program.ts'
import { orgs, people } from './demo.ts'
import { createWorld, temporaryFolder, type World } from './world.ts'

type Outcome = { code: number | null, signal: NodeJS.Signals | null, stdout: string, stderr: string }
type Started = { child: ChildProcess, outcome: Promise<Outcome>, says: (text: string) => Promise<void> }

let world: World
let folder: Awaited<ReturnType<typeof temporaryFolder>>
let program: string
const children = new Set<ChildProcess>()

beforeAll(async () => {
  world = await createWorld()
  folder = await temporaryFolder()
  program = join(folder.path, 'shop.mjs')
  await build({
    entryPoints: ['tests/command-program.ts'], outfile: program, bundle: true, platform: 'node', format: 'esm',
    banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url)' }, // commander asks for it
  })
})
beforeEach(() => world.sql`truncate events`)
afterEach(() => {
  for (const child of children) child.kill('SIGKILL')
})
afterAll(async () => {
  await world.close()
  await folder.remove()
})

describe('a command', () => {
  test('is told of before and after its action, with where it runs', async () => {
    await run(['app', 'list', '--apikey', 'hunter2', 'ada@acme.test'])
    const [invoked, succeeded] = await rows()
    const where = {
      cli_version: '1.2.3', node_version: process.version, os_platform: process.platform, os_arch: process.arch,
      os_release: expect.any(String), timezone: 'Europe/Paris', is_ci: false, is_tty: false, invocation_source: 'cli', agent_invoker: false,
    }
    const who = { actor_id: people.ada, org_id: null, app_id: null, source: 'client', tracking_version: 2, channel: 'cli-usage', notify: false }
    expect(invoked).toMatchObject({
      ...who, event: 'CLI Command Invoked', icon: '⚡', context: where,
      tags: { command_path: 'app list', flags: 'apikey', flags_count: 1, positional_arg_count: 1 },
    })
    expect(succeeded).toMatchObject({
      ...who, event: 'CLI Command Succeeded', icon: '✅', context: where, tags: { command_path: 'app list', duration_ms: expect.any(Number) },
    })
    expect(await rows()).toHaveLength(2)
  })

  test('is told of under the app that it names, for the app\'s owner', async () => {
    await run(['app', 'set', '1', '--app', 'com.acme.app'])
    expect((await rows()).map(({ org_id, app_id }) => ({ org_id, app_id }))).toEqual(Array(2).fill({ org_id: orgs.acme, app_id: 'com.acme.app' }))
  })

  test('says that CI runs it, or an agent', async () => {
    await run(['app', 'list'], {}, { CI: 'true', CLAUDECODE: '1' })
    expect((await rows())[0]!.context).toMatchObject({ is_ci: true, agent_invoker: true })
    await world.sql`truncate events`
    await run(['app', 'list'], {}, { CI: 'false', BUILD_NUMBER: '7', CLAUDECODE: '0' })
    expect((await rows())[0]!.context).toMatchObject({ is_ci: false, agent_invoker: false })
  })

  test.each<[args: string[], flags: string, count: number, env?: Record<string, string>]>([
    [['app', 'list'], '', 0],
    [['app', 'list'], '', 0, { SHOP_REGION: 'eu' }],
    [['app', 'ls', '--page', '1', '--dry-run', '-a', 'k', '-q'], 'apikey,dry-run,page,q', 0],
    [['app', 'list', '--region=us', '--limit', '3'], 'limit,region', 0, { SHOP_REGION: 'eu' }],
    [['--no-color', '--capacitor-config', '/home/ada/x.json', 'app', 'list', 'filter'], 'capacitor-config,no-color', 1],
  ])('tells the names of flags that were typed: %j', async (args, flags, count, env) => {
    await run(args, {}, env)
    const flagsCount = flags === '' ? 0 : flags.split(',').length
    expect((await rows())[0]!.tags).toEqual({ command_path: 'app list', flags, flags_count: flagsCount, positional_arg_count: count })
  })

  test('that is the default is told of by its name', async () => {
    await run([], {}, { SHOP_DEFAULT: '1' })
    expect((await rows()).map(({ tags }) => tags.command_path)).toEqual(['default', 'default'])
  })

  test('may run others, and each is told of', async () => {
    await run(['nest'], { exitOverride: true })
    expect(await told()).toEqual([
      'CLI Command Invoked nest', 'CLI Command Invoked app list', 'CLI Command Succeeded app list',
      'CLI Command Invoked throw', 'CLI Command Failed throw payload_too_large 1', 'CLI Command Failed shop commander 1', 'CLI Command Succeeded nest'])
  })

  test('is told nothing of, where somebody does not want to be tracked', async () => {
    expect(await run(['exit', '3'], {}, { DO_NOT_TRACK: '1' })).toMatchObject({ code: 3, stdout: 'leaving\n' })
    expect(await told()).toEqual([])
  })

  test('needs no catalog', async () => {
    await run(['exit', '3'], { uncatalogued: true })
    expect(await told()).toEqual(['CLI Command Invoked exit', 'CLI Command Failed exit unknown 3'])
    expect((await rows()).map(({ channel, icon }) => channel + icon)).toEqual(['cli-usage⚡', 'cli-usage❌'])
  })
})

// Each way to end, as it is told of, for each way to run a program.
const endings: [args: string[], ending: string][] = [
  [['app', 'list'], 'Succeeded app list'],
  [['throw'], 'Failed throw payload_too_large 1'],
  [['reject'], 'Failed reject network_error 1'],
  [['exit', '0'], 'Succeeded exit'],
  [['exit', '3'], 'Failed exit unknown 3'],
  [['exit-later', '0'], 'Succeeded exit-later'],
  [['exit-later', '3'], 'Failed exit-later unknown 3'],
  [['exit-code'], 'Failed exit-code unknown 4'],
  [['say'], 'Failed say unknown 9'],
]
const misuses: [args: string[], ending: string][] = [
  [['nothing-like-it'], 'Failed shop commander 1'],
  [['app'], 'Failed app commander 1'],
  [['app', 'nothing-like-it'], 'Failed app commander 1'],
  [['app', 'list', '--colour', 'red'], 'Failed app list commander 1'],
  [['app', 'list', '--region', 'mars'], 'Failed app list commander 1'],
  [['app', 'list', '--limit', 'hunter2'], 'Failed app list commander 1'],
  [['app', 'list', 'one', 'two'], 'Failed app list commander 1'],
  [['app', 'set'], 'Failed app set commander 1'],
]

describe.each<[name: string, setup: Partial<Setup>]>([
  ['parseAsync', {}],
  ['parse', { run: 'parse' }],
  ['parseAsync, and errors of commander\'s thrown', { exitOverride: true }],
  ['parseAsync, and an exit at once', { run: 'parseAsync, then exit' }],
])('with %s, a program', (_, setup) => {
  test.each(endings)('%j is invoked, and then: %s', async (args, ending) => {
    await runAsUntracked(args, setup)
    expect(await told()).toEqual([`CLI Command Invoked ${args[0] === 'app' ? 'app list' : args[0]}`, `CLI Command ${ending}`])
  })

  test.each(misuses)('%j is not understood: %s', async (args, ending) => {
    await runAsUntracked(args, setup)
    expect(await told()).toEqual([`CLI Command ${ending}`])
  })

  test('that shows help or its version is no command', async () => {
    for (const args of [['--help'], ['app', 'list', '--help'], ['help', 'app'], ['--version']]) await runAsUntracked(args, setup)
    expect(await told()).toEqual([])
  })
})

describe('an interrupted command', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('is told of, and ends by %s', async (signal) => {
    const { child, outcome, says } = start(['wait'])
    await says('waiting')
    child.kill(signal)
    expect(await outcome).toMatchObject({ code: null, signal })
    const code = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }[signal]
    expect(await told()).toEqual(['CLI Command Invoked wait', `CLI Command Failed wait interrupted ${code}`])
  })

  test('ends, or goes on, as the program would have it', async () => {
    for (const [onInterrupt, code] of [['exit', 7], ['go on', 0]] as const) {
      const { child, outcome, says } = start(['wait'], { onInterrupt })
      await says('waiting')
      child.kill('SIGINT')
      expect(await outcome).toMatchObject({ code, signal: null })
    }
    expect(await told()).toEqual([
      'CLI Command Invoked wait', 'CLI Command Failed wait interrupted 7', 'CLI Command Invoked wait', 'CLI Command Succeeded wait'])
  })
})

describe('an end is not put off', () => {
  let silent: Server
  let asked: number

  beforeEach(async () => {
    asked = 0
    silent = createServer(() => { asked++ }) // and never answers
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  })
  afterEach(() => {
    silent.closeAllConnections()
    silent.close()
  })
  const url = () => `http://127.0.0.1:${(silent.address() as AddressInfo).port}`

  // A tracker by itself waits ten seconds for an answer; and what is waited at the end is waited once, not twice.
  test.each<[args: string[], setup: Partial<Setup>, code: number]>([
    [['app', 'list'], {}, 0],
    [['app', 'list'], { run: 'parse' }, 0],
    [['app', 'list'], { run: 'parseAsync, then exit', exitTimeout: 5_000 }, 0],
    [['throw'], {}, 1],
    [['reject'], { run: 'parse' }, 1],
    [['exit', '3'], {}, 3],
    [['app'], {}, 1],
  ])('by a server that never answers: %j %j', async (args, setup, code) => {
    const began = performance.now()
    const outcome = await run(args, { exitTimeout: 500, ...setup, url: url() })
    expect(outcome).toMatchObject({ code, signal: null })
    expect(asked).toBeGreaterThan(0)
    expect(performance.now() - began).toBeLessThan(9_000)
  })

  test('by a server that never answers, when it is interrupted', async () => {
    const { child, outcome, says } = start(['wait'], { url: url(), exitTimeout: 500 })
    await says('waiting')
    const began = performance.now()
    child.kill('SIGINT')
    expect(await outcome).toMatchObject({ signal: 'SIGINT' })
    expect(performance.now() - began).toBeLessThan(9_000)
  })

  test('and what was not delivered is, the next time', async () => {
    const { path, remove } = await temporaryFolder()
    try {
      const queue = join(path, 'events')
      await run(['exit', '3'], { url: url(), exitTimeout: 300, queue })
      await run(['app', 'list'], { url: `http://127.0.0.1:${await freePort()}`, exitTimeout: 300, queue })
      expect(await told()).toEqual([])
      await run(['exit', '0'], { queue })
      expect((await told()).sort()).toEqual([
        'CLI Command Failed exit unknown 3', 'CLI Command Invoked app list', 'CLI Command Invoked exit', 'CLI Command Invoked exit',
        'CLI Command Succeeded app list', 'CLI Command Succeeded exit'])
    } finally {
      await remove()
    }
  })
})

test('no text of a command line, an environment or an error is recorded', async () => {
  const secrets = ['hunter2', 'ada@acme.test', '/home/ada', 'secret-app', 'AuthKey', 'sk-live-1']
  const env = { SHOP_REGION: 'us', SHOP_SECRET: 'sk-live-1' }
  for (const args of [['throw'], ['reject'], ['say'], ['app', 'list', 'ada@acme.test', '--token', 'hunter2'], ['app', 'list', '--hunter2'], ['hunter2'], ['app', '/home/ada/secret-app']]) {
    await run(args, {}, env)
  }
  const recorded = await world.sql<{ row: string }[]>`select to_jsonb(e)::text as row from events as e`
  expect(recorded).toHaveLength(11)
  for (const { row } of recorded) for (const secret of secrets) expect(row).not.toContain(secret)
  for (const { event, tags } of await rows()) expect(faultInTags(events, event, tags)).toBeUndefined()
})

describe('trackCommand', () => {
  test('takes commander\'s programs and this package\'s trackers as they are', () => {
    expectTypeOf<Command>().toExtend<CommandLike>()
    const plain = createTracker({ url: 'http://127.0.0.1', publishableKey }, { disabled: true })
    const typed = createTracker({ url: 'http://127.0.0.1', publishableKey }, { disabled: true, catalog: commandEvents })
    const other = createTracker({ url: 'http://127.0.0.1', publishableKey }, { disabled: true, catalog: { Other: { scope: 'org' } } })
    expectTypeOf(plain).toExtend<CommandTracker>()
    expectTypeOf(typed).toExtend<CommandTracker>()
    expectTypeOf(other).toExtend<CommandTracker>()
    const program = new Command('shop')
    expect(trackCommand(program, plain)).toBe(program)
    expectTypeOf(trackCommand(program, plain)).toEqualTypeOf<Command>()
  })

  test('tells two command lines of one program in turn, and leaves no listener for signals', async () => {
    const tracker = createTracker({ url: world.api.url, publishableKey, apiKey: 'as_local_acme_admin' }, { catalog: commandEvents })
    const program = new Command('shop').exitOverride().configureOutput({ writeErr: () => {} })
    const before = process.listenerCount('SIGINT')
    let during = 0
    program.command('one').action(() => { during = process.listenerCount('SIGINT') })
    program.command('two').action(async () => { throw new Error('Invalid') })
    trackCommand(program, tracker, { org: orgs.acme, context: { invocation_source: 'test' } })

    expect(await program.parseAsync(['one'], { from: 'user' })).toBe(program)
    await expect(program.parseAsync(['two'], { from: 'user' })).rejects.toThrow('Invalid')
    await expect(program.parseAsync(['three'], { from: 'user' })).rejects.toMatchObject({ code: 'commander.unknownCommand' })
    expect(await told()).toEqual([
      'CLI Command Invoked one', 'CLI Command Succeeded one', 'CLI Command Invoked two', 'CLI Command Failed two validation_error 1',
      'CLI Command Failed shop commander 1'])
    expect((await rows()).every(({ org_id, context }) => org_id === orgs.acme && context.invocation_source === 'test')).toBe(true)
    expect([during, process.listenerCount('SIGINT')]).toEqual([before + 1, before])
    await tracker.shutdown(10_000)
  })

  test('breaks nothing when all of it breaks', async () => {
    const broken: CommandTracker = {
      track() { throw new Error('track') },
      flush() { throw new Error('flush') },
      flushSync() { throw new Error('flushSync') },
    }
    const program = new Command('shop')
    let ran = 0
    program.command('one').action(() => { ran++ })
    trackCommand(program, broken, { app: () => { throw new Error('app') } })
    await program.parseAsync(['one'], { from: 'user' })
    program.parse(['one'], { from: 'user' })
    expect(ran).toBe(2)
  })
})

/** Starts the program with a bare environment: neither CI nor an agent. */
function start(args: string[], setup: Partial<Setup> = {}, env: Record<string, string> = {}): Started {
  const whole: Setup = { url: world.api.url, publishableKey, apiKey: 'as_local_acme_admin', exitTimeout: 30_000, ...setup }
  const child = spawn(process.execPath, [program, ...args], {
    env: { PATH: process.env.PATH, TZ: 'Europe/Paris', NO_COLOR: '1', COMMAND_PROGRAM: JSON.stringify(whole), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  children.add(child)
  const said = { stdout: '', stderr: '' }
  const listeners = new Set<() => void>()
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]!.setEncoding('utf8').on('data', (text: string) => {
      said[name] += text
      for (const listener of listeners) listener()
    })
  }
  return {
    child,
    outcome: new Promise((resolve) => child.on('close', (code, signal) => {
      children.delete(child)
      resolve({ code, signal, ...said })
    })),
    says: (text) => new Promise((resolve, reject) => {
      const listen = () => { if (said.stdout.includes(text)) resolve() }
      listeners.add(listen)
      child.on('close', () => reject(new Error(`It ended without saying ${text}: ${said.stderr}`)))
      listen()
    }),
  }
}

function run(args: string[], setup?: Partial<Setup>, env?: Record<string, string>): Promise<Outcome> {
  return start(args, setup, env).outcome
}

type Row = { event: string, channel: string, icon: string, org_id: string | null, app_id: string | null, tags: Record<string, string | number>, context: Record<string, unknown> }

async function rows(): Promise<Row[]> {
  return world.sql<Row[]>`select * from events order by event_id`
}

/** What was recorded, in short, in its order. */
async function told(): Promise<string[]> {
  return (await rows()).map(({ event, tags: { command_path, error_category, exit_code } }) =>
    [event, command_path, error_category, exit_code].filter((part) => part !== undefined).join(' '))
}

/** Runs the program, and sees that it prints and exits with what it would if it were not tracked. */
async function runAsUntracked(args: string[], setup: Partial<Setup>): Promise<void> {
  const [tracked, untracked] = await Promise.all([run(args, setup), run(args, { ...setup, untracked: true })])
  const plain = ({ stderr, ...outcome }: Outcome) => ({ ...outcome, stderr: stderr.replace(/^ +at .*\n/gm, '') })
  expect(plain(tracked)).toEqual(plain(untracked))
}
