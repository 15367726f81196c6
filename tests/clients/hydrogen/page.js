// Starts Hydrogen in the page as its own `main.js` does: the whole application, with its router, its
// service worker, and the homeserver that `config.json` names.

import { createNavigation, createRouter, FeatureSet, Platform, RootViewModel } from "hydrogen-view-sdk";

const assets = "packages/hydrogen-view-sdk/asset-build/assets";
const olm = "packages/@matrix-org/olm";
const platform = new Platform({
    container: document.body,
    assetPaths: {
        downloadSandbox: `${assets}/download-sandbox.html`,
        worker: `${assets}/main.js`,
        olm: {
            wasm: `${olm}/olm.wasm`,
            legacyBundle: `${olm}/olm_legacy.js`,
            wasmBundle: `${olm}/olm.js`,
        },
        serviceWorker: "sw.js",
    },
    configURL: "config.json",
});
const navigation = createNavigation();
platform.setNavigation(navigation);
await platform.init();
const urlRouter = createRouter({ navigation, history: platform.history });
urlRouter.attach();
const features = await FeatureSet.load(platform.settingsStorage);
const root = new RootViewModel({ platform, urlRouter, navigation, features });
await root.load();
platform.createAndMountRootView(root);
