# The C++ package: library, public headers, and what find_package(algan_core) reads.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/algan_core")
set_target_properties(algan_core PROPERTIES EXPORT_NAME core)
install(
  TARGETS algan_core
  EXPORT algan_core
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT cpp
  INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(DIRECTORY csrc/include/algan DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT cpp
        FILES_MATCHING PATTERN "*.h")
install(EXPORT algan_core NAMESPACE algan:: FILE algan_coreTargets.cmake
        DESTINATION "${package_dir}" COMPONENT cpp)

configure_package_config_file(
  cmake/algan_coreConfig.cmake.in "${PROJECT_BINARY_DIR}/algan_coreConfig.cmake"
  INSTALL_DESTINATION "${package_dir}")
# Before 1.0.0 a minor version may change the interface.
write_basic_package_version_file("${PROJECT_BINARY_DIR}/algan_coreConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/algan_coreConfig.cmake"
              "${PROJECT_BINARY_DIR}/algan_coreConfigVersion.cmake"
        DESTINATION "${package_dir}" COMPONENT cpp)
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/algan_core" COMPONENT cpp)
