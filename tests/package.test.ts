import { execFile } from 'node:child_process'
import { mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { publint } from 'publint'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { projectDir } from '../src/settings.ts'
import { temporaryFolder } from './world.ts'

const run = promisify(execFile)
const bin = (name: string) => join(projectDir, 'node_modules/.bin', name)
const plain = { ...process.env, NO_COLOR: '1', FORCE_COLOR: undefined }

let folder: Awaited<ReturnType<typeof temporaryFolder>>
let tarball: string
/** The package as it is installed in somebody's project, beside its dependencies. */
let installed: string

beforeAll(async () => {
  folder = await temporaryFolder()
  await run('npm', ['pack', '--ignore-scripts', '--pack-destination', folder.path, '--silent'], { cwd: projectDir })
  tarball = join(folder.path, (await readdir(folder.path)).find((name) => name.endsWith('.tgz'))!)
  const modules = join(folder.path, 'node_modules')
  installed = join(modules, 'actorscope')
  await mkdir(installed, { recursive: true })
  await run('tar', ['-xzf', tarball, '-C', installed, '--strip-components=1'])
  for (const name of ['@supabase', '@types', 'commander']) await symlink(join(projectDir, 'node_modules', name), join(modules, name))
  await writeFile(join(folder.path, 'package.json'), '{ "type": "module" }')
})
afterAll(() => folder.remove())

test('publint has nothing to say', async () => {
  const { messages } = await publint({ pkgDir: installed, pack: false, strict: true })
  expect(messages).toEqual([])
})

test('the types are right, wherever ESM is imported', async () => {
  const { stdout } = await run(bin('attw'), [tarball, '--profile', 'esm-only', '--format', 'json'], { env: plain })
    .catch((error: { stdout: string }) => error)
  const { analysis, problems } = JSON.parse(stdout)
  expect(Object.keys(analysis.entrypoints)).toEqual(['.', './catalog', './commander', './node', './package.json'])
  const foreign = new Set(['NoResolution', 'CJSResolvesToESM']) // of node10 and require(), which are not spoken
  expect(Object.keys(problems).filter((kind) => !foreign.has(kind))).toEqual([])
})

test('it brings the library, the command line, the chapters, the edge functions with their sources, the demo world, and nothing else', async () => {
  const files = (await readdir(installed)).sort()
  expect(files).toEqual(['LICENSE', 'README.md', 'dist', 'migrations', 'package.json', 'seed.sql', 'src', 'supabase', 'tests'])
  expect(await readdir(join(installed, 'src'))).toEqual(await readdir(join(projectDir, 'src')))
  expect(await readdir(join(installed, 'supabase'))).toEqual(['functions'])
  expect(await readdir(join(installed, 'tests'))).toEqual(['fixtures'])
})

test('each entry can be imported, and its types hold in a strict project', async () => {
  await writeFile(join(folder.path, 'use.ts'), `
    import { createClient } from '@supabase/supabase-js'
    import { createTracker, TrackingError } from 'actorscope'
    import { defineCatalog, events } from 'actorscope/catalog'
    import { trackCommand } from 'actorscope/commander'
    import { fileQueue } from 'actorscope/node'
    import { Command } from 'commander'

    const catalog = defineCatalog({ ...events, 'Report Exported': { scope: 'org', tags: { format: ['csv', 'pdf'], 'rows?': 'integer' } } })
    const tracker = createTracker({ url: 'http://127.0.0.1:1', publishableKey: 'k', apiKey: 'a' }, { catalog, queue: fileQueue('q') })
    createTracker(createClient('http://127.0.0.1:1', 'k'))
    tracker.track('Report Exported', { tags: { format: 'csv' } })
    // @ts-expect-error: it is no format
    tracker.track('Report Exported', { tags: { format: 'xls' } })
    trackCommand(new Command(), tracker)
    export const code = (error: TrackingError) => error.code
  `)
  const options = ['--noEmit', '--strict', '--skipLibCheck', '--target', 'es2022', '--lib', 'es2022,dom', '--types', 'node']
  for (const resolution of [['--module', 'nodenext'], ['--module', 'esnext', '--moduleResolution', 'bundler']]) {
    const { stdout } = await run(bin('tsc'), [...options, ...resolution, 'use.ts'], { cwd: folder.path }).catch((error: { stdout: string }) => error)
    expect(stdout).toBe('')
  }
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', `
    const names = await Promise.all(['actorscope', 'actorscope/catalog', 'actorscope/commander', 'actorscope/node'].map((name) => import(name)))
    console.log(names.map((module) => typeof (module.createTracker ?? module.events ?? module.trackCommand ?? module.fileQueue)).join(' '))
  `], { cwd: folder.path })
  expect(stdout.trim()).toBe('function object function function')
})

test('the command line starts without the packages that only the local stack needs', async () => {
  const { stdout } = await run(process.execPath, [join(installed, 'dist/cli.js'), '--help'], { env: plain })
  const commands = ['track', 'tail', 'import', 'keys', 'build', 'catalog', 'worker', 'replay', 'dead', 'export', 'erase', 'up', 'doctor', 'funnel', 'sessions']
  for (const command of commands) expect(stdout).toContain(`  ${command} `)
})
