// Installs the packages where they are missing or older than the lock file says: so that `npm start` and
// `npm test` are all there is to type on a fresh clone. Plain JavaScript, since nothing is installed yet.
import { spawnSync } from 'node:child_process'
import { statSync } from 'node:fs'

const changedAt = (path) => statSync(new URL(path, import.meta.url), { throwIfNoEntry: false })?.mtimeMs ?? 0

if (Number(process.versions.node.split('.')[0]) < 20) {
  console.error(`Actorscope needs Node 20 or later; this is ${process.version}.`)
  process.exitCode = 1
} else if (changedAt('node_modules/.package-lock.json') < changedAt('package-lock.json')) {
  console.log('Installing the packages …')
  process.exitCode = spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: import.meta.dirname, stdio: 'inherit' }).status ?? 1
}
